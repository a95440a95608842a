//go:build !linux

package dockeragent

// ownNetwork is empty: an engine of Linux containers is in a VM here.
func ownNetwork(string) string { return "" }
