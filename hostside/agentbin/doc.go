// Package agentbin holds the agents that the daemon carries, so that one program
// on the host is all that is needed to prepare a VM of either architecture.
//
// Theory of operation. The folder agents is embedded. "make build" fills it with
// vmbridge-guest-ARCHITECTURE.gz first; they are no part of the repository, only
// its README is, so a build without make is complete but carries none and says
// so. They are compressed, 8 MB instead of 20, and unpacked while they are read.
package agentbin
