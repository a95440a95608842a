//go:build linux

package main

// A Client is the worker that begins connections: in the host namespace, or in
// the guest's where the subject carries from there. Its methods are spread over
// the files of the measures that need them.
type Client struct {
	transfers
	roundTrips
	connRate
	flood
	probes
	refused
	idleConns
}
