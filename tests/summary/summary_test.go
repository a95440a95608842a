package main

import (
	"strings"
	"testing"
)

// What go test -json wrote for a package with one test of each kind, a package
// that does not build, and a line of the go command's own.
const recorded = `go: a remark of the go command
{"Action":"start","Package":"m/a"}
{"Action":"run","Package":"m/a","Test":"TestPass"}
{"Action":"output","Package":"m/a","Test":"TestPass","Output":"=== RUN   TestPass\n"}
{"Action":"output","Package":"m/a","Test":"TestPass","Output":"    a_test.go:5: chatter\n"}
{"Action":"pass","Package":"m/a","Test":"TestPass","Elapsed":0}
{"Action":"output","Package":"m/a","Test":"TestFail","Output":"    a_test.go:9: want 1, got 2\n"}
{"Action":"fail","Package":"m/a","Test":"TestFail","Elapsed":0}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"=== RUN   TestSkip\n"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"    a_test.go:12: needs root\n"}
{"Action":"output","Package":"m/a","Test":"TestSkip","Output":"--- SKIP: TestSkip (0.00s)\n"}
{"Action":"skip","Package":"m/a","Test":"TestSkip","Elapsed":0}
{"Action":"output","Package":"m/a","Output":"FAIL\n"}
{"Action":"output","Package":"m/a","Output":"FAIL\tm/a\t0.002s\n"}
{"Action":"fail","Package":"m/a","Elapsed":0.002}
{"ImportPath":"m/b","Action":"build-output","Output":"b/b.go:3:1: syntax error\n"}
{"ImportPath":"m/b","Action":"build-fail"}
{"Action":"output","Package":"m/b","Output":"FAIL\tm/b [build failed]\n"}
{"Action":"fail","Package":"m/b","Elapsed":0,"FailedBuild":"m/b"}
{"Action":"output","Package":"m/c","Output":"PASS\n"}
{"Action":"output","Package":"m/c","Output":"ok  \tm/c\t0.001s\n"}
{"Action":"pass","Package":"m/c","Elapsed":0.001}
`

func TestSummary(t *testing.T) {
	var out strings.Builder
	s := newSummary(&out)
	if err := s.read(strings.NewReader(recorded)); err != nil {
		t.Fatal(err)
	}
	if s.finish() {
		t.Error("a run with failures counts as good")
	}
	const want = `go: a remark of the go command
    a_test.go:9: want 1, got 2
FAIL
FAIL	m/a	0.002s
b/b.go:3:1: syntax error
FAIL	m/b [build failed]
ok  	m/c	0.001s

1 tests were skipped:
  m/a TestSkip: needs root

1 passed, 2 failed, 1 skipped
`
	if out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
}

func TestSummaryOfNothing(t *testing.T) {
	s := newSummary(new(strings.Builder))
	if s.finish() {
		t.Error("a run without a test counts as good")
	}
}
