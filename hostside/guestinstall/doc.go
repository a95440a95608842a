// Package guestinstall puts the agent into a guest through a command that leads
// to a shell there, and installs it as a service, or runs it at once over the same
// pipe.
//
// Theory of operation. All that is needed of a guest is a shell of root and what
// every small Linux has (uname, id, mktemp, head, wc). The shell gets its orders
// on standard input, and since it may read ahead, each is sent only when the one
// before has been answered; what a program is to read (the agent, the key) is sent
// when that program has been announced. So the key is on no command line, and
// nothing needs a terminal or a file transfer of its own.
//
// An answer is a line that begins with a marker, drawn for the session. Whatever
// else comes (a message of the day, a prompt) is no answer. The marker is sent in
// two pieces, so that its echo is none either.
//
// A transfer that fails in the guest must not let the shell take the rest of the
// agent for orders: it then reads, and throws away, all that comes, and ends.
// However the session ends, a trap of the shell removes the temporary directory,
// which lies beside the program's own place, because that is where there must be
// room and where programs may run.
//
// A Starter is for the links of VMs that belong to a product, such as lima://. Its
// agent is a file of root's alone, named after its checksum, in a directory that
// survives the VM's restart. When it is there, one order makes the shell the agent,
// and the pipe is the link's; else it is copied first, and replaces other versions.
// The file is moved to its place when it is whole, on the disk, and has shown that it
// runs, so that daemons that copy at once, connections that break, and machines that
// lose their power do no harm. The agent ends with the pipe.
package guestinstall
