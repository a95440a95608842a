//go:build !linux

package main

func main() { panic("this runs inside a Linux virtual machine") }
