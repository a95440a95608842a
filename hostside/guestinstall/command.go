package guestinstall

import "regexp"

// agentCommand finds the agent within a link's command: its name with or without
// a path, serve, and its flags up to whatever ends a command for a shell.
var agentCommand = regexp.MustCompile(`[^\s'"=]*vmbridge-guest\s+serve\b[^'";&|)]*`)

// ShellCommand is the command that leads to a shell in the guest, made of that of
// an exec: link. One that runs the agent runs a shell instead, in the same way, as
// by ssh and sudo; any other is taken to lead to a shell as it is.
func ShellCommand(command string) string {
	return agentCommand.ReplaceAllLiteralString(command, "sh")
}
