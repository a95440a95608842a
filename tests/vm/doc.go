// Package vm boots small virtual machines for tests: Debian's kernel for cloud
// images, an initramfs of busybox and whatever the test adds, and QEMU with
// software emulation, which boots them in a few seconds anywhere.
//
// Theory of operation. FindKernel unpacks the kernel's package, once per user,
// without installing it. Image.Write makes an initramfs whose init loads modules
// and then runs the test's script. Start runs QEMU with the serial console on
// its standard output, which Machine keeps line by line: tests wait for lines,
// and a test that fails shows the console.
//
// The machines have no network card unless the test gives them one.
package vm
