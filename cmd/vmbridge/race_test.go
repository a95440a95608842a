//go:build race

package main

// The programs under test are built like the test itself.
var buildMode = []string{"-race"}
