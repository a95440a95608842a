//go:build !linux

package main

import (
	"fmt"
	"os"
	"runtime"
)

func main() {
	fmt.Fprintf(os.Stderr, "bench: needs network namespaces, which %s does not have: run it on Linux, as root\n", runtime.GOOS)
	os.Exit(2)
}
