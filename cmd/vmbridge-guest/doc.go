// Command vmbridge-guest is the guest's side: the agent that finds what
// listens and delivers the host's connections to it. It holds flags and
// wiring; what they do lies in guestside.
package main
