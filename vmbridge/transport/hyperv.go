package transport

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/Microsoft/go-winio/pkg/guid"
)

// maxHyperVPort is the last port that a Linux guest listens on; those above are for
// its own connections (MAX_LISTEN_PORT in net/vmw_vsock/hyperv_transport.c).
const maxHyperVPort = 1<<31 - 1

// notGuests are the GUIDs that stand for something else than one VM: hvsocket.h
// has them as HV_GUID_ZERO, BROADCAST, CHILDREN, LOOPBACK, PARENT and SILOHOST.
var notGuests = []string{
	"00000000-0000-0000-0000-000000000000",
	"ffffffff-ffff-ffff-ffff-ffffffffffff",
	"90db8b89-0d35-4f79-8ce9-49ea0ac8b7cd",
	"e0e16197-dd56-4a10-9195-5ee7a155a838",
	"a42e7cda-d03f-480c-9cc2-a4de20abb878",
	"36bd0c5c-7276-4223-88ba-7d03b654c568",
}

func parseHyperV(rest string) (e Endpoint, problem string) {
	const form = "write hyperv://VMID:PORT, the ID as Get-VM | select VMId, or wslinfo --vm-id in WSL, gives it"
	authority, ok := strings.CutPrefix(rest, "//")
	if !ok {
		return e, form
	}
	vm, port, ok := strings.Cut(authority, ":")
	if !ok {
		return e, "no port; " + form
	}
	id, err := guid.FromString(vm)
	if err != nil {
		return e, fmt.Sprintf("the VM's ID %q is not a GUID; %s", vm, form)
	}
	e.vm = strings.ToLower(id.String())
	if slices.Contains(notGuests, e.vm) {
		return e, fmt.Sprintf("the ID %s is not that of one VM; %s", e.vm, form)
	}
	n, err := strconv.ParseUint(port, 10, 32)
	if err != nil || n == 0 || n > maxHyperVPort {
		return e, fmt.Sprintf("the port %q is not a number from 1 to %d; %s", port, maxHyperVPort, form)
	}
	e.port = uint32(n)
	return e, ""
}
