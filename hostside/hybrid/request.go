package hybrid

import (
	"errors"
	"strconv"
	"strings"
)

var errRequest = errors.New("unknown request; write CONNECT PORT")

// anyPort is what no connection can be made to (VMADDR_PORT_ANY).
const anyPort = 1<<32 - 1

// parseConnect reads CONNECT PORT, without the end of the line.
func parseConnect(line string) (port uint32, err error) {
	number, ok := strings.CutPrefix(line, "CONNECT ")
	if !ok {
		return 0, errRequest
	}
	n, err := strconv.ParseUint(number, 10, 32)
	if err != nil || n == anyPort {
		return 0, errRequest
	}
	return uint32(n), nil
}
