// Package vm boots virtual machines for tests: Debian's kernel for cloud images,
// QEMU with software emulation, which works anywhere, and inside either busybox
// and what the test adds, or an installed Debian.
//
// Theory of operation. FindKernel unpacks the kernel's package without installing
// it. Image.Write makes an initramfs whose init loads modules and then runs the
// test's script: such a machine boots in a few seconds. System.Disk installs a
// Debian of packages into a file, and System.Initramfs mounts it and starts its
// init, systemd (Debian) or OpenRC; that takes 12 s on two idle cores. What the
// test builds comes with the initramfs, so that the disk depends on its recipe
// alone, and machines leave the file as it is.
//
// Kernel and disks are kept in the user's cache directory, in vmbridge-tests:
// 100 MB, 510 MB and 330 MB. Making the disks takes 40 to 60 s each, once.
//
// Start runs QEMU with the serial console on its standard output, which Machine
// keeps line by line: tests wait for lines, and a test that fails shows the
// console. A test has things done inside through package orders.
//
// The machines have no network card unless the test gives them one: vsock is the
// only way out.
package vm
