//go:build linux

package main

// A Client is the worker in the host namespace. Its methods are spread over
// the files of the measures that need them.
type Client struct {
	transfers
	roundTrips
	connRate
	flood
	probes
	idleConns
}
