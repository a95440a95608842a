// Package agentlog writes what an agent logs to the daemon's log.
//
// Theory of operation. An agent's line gets the prefix "agent: ", and its fields
// join those that say which guest it is from, without replacing them. The guest
// may be hostile: its text is made safe to print, its level is at most that of an
// error, and a Log takes only so many lines, counts the others and says how many
// they were.
package agentlog
