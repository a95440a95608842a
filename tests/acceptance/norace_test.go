//go:build !race

package acceptance

// raceEnabled says that this test program runs under the race detector.
const raceEnabled = false
