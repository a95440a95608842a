// Package dockerapi finds the API of a container engine, Docker's or Podman's
// that is compatible, where the command docker would find it.
//
// Theory of operation. Find follows the rules of the command docker: DOCKER_HOST, then
// DOCKER_CONTEXT, then the current context of its configuration, each with the
// TLS material that belongs to it, read by the command's own packages. Whoever
// names an engine in one of these ways means that one, so another is never taken in
// its place: when it does not answer, that is the error.
//
// Only where nobody has named any, the places are tried where the products put their
// sockets, in a fixed order, and the first that answers is taken: first Docker's own,
// then those of products that run a VM, then Podman's, and those of engines without
// root last, since they cannot share their VM's network.
//
// Everything that was looked at and passed over is a line in Found.Passed, or in the
// NotFoundError, for users to read.
package dockerapi
