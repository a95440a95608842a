// Package install puts the agent into a guest, and takes it out again: program,
// link key and a service of the guest's own service manager.
//
// Theory of operation. Everything that can be found wrong is found before
// anything changes. Then each file appears under its name in one step, whole and
// synced, so that a crash or a full disk leaves the old one or the new one; the
// program may be running meanwhile. A lock on the program's directory keeps a
// second install out.
//
// The service manager is found, not configured: the one that runs, else the one
// that is installed, as in a chroot or an image that is being made, where the
// service is enabled and started by the next boot. A guest that has neither
// systemd nor OpenRC gets program and key all the same, because they are what is
// hard to bring in, and an error that says what remains to be done.
//
// The agent says when it serves (package ready), so Install does not take a
// process for a service: it waits until the agent listens, and otherwise shows
// the end of the log.
//
// The service loads the module of virtio's vsock by itself before the agent
// starts. A file in modules-load.d would do the same, but makes the boot of
// kernels without that module fail in part. Other hypervisors' come by
// themselves.
package install
