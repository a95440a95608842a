package vhostdevice

import (
	"fmt"
	"runtime"
	"strings"
)

// QEMUFlags are what QEMU has to be started with on this machine, for the shell.
// SIZE stands for the size of the memory.
func QEMUFlags(path string) string { return qemuFlags(runtime.GOOS, runtime.GOARCH, path) }

func qemuFlags(goos, goarch, path string) string {
	memory, machine := "memory-backend-memfd", "q35"
	if goos == "darwin" {
		memory = "memory-backend-shm" // QEMU 9.1; there is no memfd
	}
	if goarch == "arm64" {
		machine = "virt"
	}
	return strings.Join([]string{
		"-object " + memory + ",id=mem0,size=SIZE,share=on",
		"-machine " + machine + ",memory-backend=mem0",
		"-chardev " + quote("socket,id=c0,path="+strings.ReplaceAll(path, ",", ",,")),
		"-device vhost-user-vsock-pci,chardev=c0",
	}, " ")
}

// quote makes one word of s for a shell, where it is not one already.
func quote(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-,=+:@", r)
	}
	if strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return fmt.Sprintf("'%s'", strings.ReplaceAll(s, "'", `'\''`))
	}
	return s
}
