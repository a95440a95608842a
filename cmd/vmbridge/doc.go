// Command vmbridge is the host's side: the daemon (vmbridge up) and the
// commands that talk to it. It holds flags and wiring; what they do lies in
// hostside and settings.
package main
