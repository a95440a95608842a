// Package imports holds the repository's rules about who may import whom.
package imports

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/vmbridge/vmbridge"

// forbidden lists, for each top directory, the top directories that nothing in
// it may import. So only cmd joins settings to a side.
var forbidden = map[string][]string{
	"vmbridge":  {"guestside", "hostside", "settings", "cmd", "tests"},
	"guestside": {"hostside", "settings", "cmd", "tests"},
	"hostside":  {"guestside", "settings", "cmd", "tests"},
	"settings":  {"guestside", "hostside", "vmbridge", "cmd", "tests"},
	"cmd":       {"tests"},
}

// sources parses every Go file of the repository, for whatever system it is.
func sources(t *testing.T, mode parser.Mode) map[string]*ast.File {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("not where the repository is: %v", err)
	}
	files := make(map[string]*ast.File)
	fset := token.NewFileSet()
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		name := d.Name()
		if d.IsDir() && path != root && (strings.HasPrefix(name, ".") || name == "testdata" || name == "bin") {
			return fs.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(name, ".go") {
			return nil
		}
		file, err := parser.ParseFile(fset, path, nil, mode)
		if err != nil {
			return err
		}
		relative, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		files[filepath.ToSlash(relative)] = file
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func topOf(path string) string {
	top, _, _ := strings.Cut(path, "/")
	return top
}

func TestImportRules(t *testing.T) {
	files := sources(t, parser.ImportsOnly)
	if len(files) < 20 {
		t.Fatalf("only %d Go files found", len(files))
	}
	for path, file := range files {
		top := topOf(path)
		for _, spec := range file.Imports {
			imported, err := strconv.Unquote(spec.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if imported == "C" {
				t.Errorf("%s uses cgo: every program must build without", path)
			}
			rest, ok := strings.CutPrefix(imported, module+"/")
			if !ok {
				continue
			}
			other := topOf(rest)
			if other == "tests" && strings.HasSuffix(path, "_test.go") {
				continue // helpers of tests
			}
			if slices.Contains(forbidden[top], other) {
				t.Errorf("%s imports %s: nothing in %s may import %s", path, imported, top, other)
			}
		}
	}
}

// TestPackageComments: every package says in one place what it is for.
func TestPackageComments(t *testing.T) {
	documented := make(map[string]bool)
	for path, file := range sources(t, parser.PackageClauseOnly|parser.ParseComments) {
		dir := filepath.ToSlash(filepath.Dir(path))
		documented[dir] = documented[dir] || file.Doc != nil
	}
	for dir, ok := range documented {
		if !ok {
			t.Errorf("package %s has no package comment", dir)
		}
	}
}
