package transport

import "fmt"

// openStdio fails: the agent, whose transport this is, runs on Linux.
func openStdio() (*pipeConn, error) {
	return nil, fmt.Errorf("%w: an agent runs on Linux only", ErrUnsupported)
}
