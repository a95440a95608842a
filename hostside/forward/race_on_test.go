//go:build race

package forward

// raceDetector: bounds of time and memory do not hold under it.
const raceDetector = true
