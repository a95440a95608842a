// Package dockeragent runs the agent in a VM that a container engine belongs to, by
// means of the engine's API alone, and speaks with it over the standard input and output
// of its container.
//
// Theory of operation. A Keeper belongs to a link. Each Dial finds the engine (package
// dockerapi), makes sure that it has an image of the agent that this program carries
// (package agentbin), and runs that in a container with all privileges and the VM's own
// network, processes and cgroups. The image holds one file and is made in memory:
// neither a registry nor the internet is needed. Its tag is the digest of the agent,
// so another version of this program makes another image and removes the old one.
//
// The container has one name, so that an engine has one agent. Two in one VM would open each of
// its ports twice, and only one of them could have the host address; so the name serves as a
// lock that the engine itself keeps. Labels say whose the container is. One of this
// link's own, which a daemon that was killed has left, is removed and made anew.
// One of another daemon is in use, and Dial says whose it is: nobody's agent is ever
// removed by somebody else, unless it was never started.
//
// It ends by itself, however the daemon ends: the engine closes its standard input when
// the connection that was attached to it is gone (StdinOnce), the agent then ends, and
// the engine removes the container (AutoRemove). Should the engine be killed instead,
// the agent ends within 10 s because nobody answers it.
//
// The connection is what the engine makes of the request to attach. What is written
// goes to the agent as it is. What comes has a header of 8 bytes before each piece, as
// standard output and error share it; demux takes the two apart without a goroutine
// and a pipe in between, which the engine's own stdcopy would need, and keeps deadlines.
// The container has no log: an engine would write every byte to a file.
//
// An engine that isolates its containers, in a user namespace for one, refuses such a
// container, or gives it something else than the VM's network. That is asked before
// one is made, and told as evidence of isolation.
package dockeragent
