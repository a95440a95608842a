//go:build race

package link_test

// raceEnabled tells that the race detector slows everything down.
const raceEnabled = true
