package isolation

import (
	"os"
	"slices"
	"strings"

	"github.com/vmbridge/vmbridge/vmbridge/message"
)

// ownNamespace tells whether this process's user ids are the kernel's.
func ownNamespace() evidence {
	var e evidence
	const path = "/proc/self/uid_map"
	text, err := os.ReadFile(path)
	if err != nil {
		e.missed("the user namespace", err)
		return e
	}
	fields := strings.Fields(string(text))
	if !slices.Equal(fields, []string{"0", "0", "4294967295"}) {
		e.found(message.IsolationUserNamespace, "%s of the agent is %q", path, strings.Join(fields, " "))
	}
	return e
}
