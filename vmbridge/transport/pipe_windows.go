package transport

import (
	"crypto/rand"
	"fmt"
	"os"

	"golang.org/x/sys/windows"
)

// pipeSize is the advisory size of the system's buffers.
const pipeSize = 256 << 10

// pipe returns a pipe whose end on our side is pollable. An anonymous pipe
// cannot be, so this is a named one that only this process can have opened: its
// name is random, admits one instance, and is connected before it is known.
func pipe(ourEnd pipeEnd) (r, w *os.File, err error) {
	name := `\\.\pipe\vmbridge-` + rand.Text()
	name16, err := windows.UTF16PtrFromString(name)
	if err != nil {
		return nil, nil, err
	}
	serverMode, clientAccess := uint32(windows.PIPE_ACCESS_INBOUND), uint32(windows.GENERIC_WRITE)
	if ourEnd == writeEnd {
		serverMode, clientAccess = windows.PIPE_ACCESS_OUTBOUND, windows.GENERIC_READ
	}
	server, err := windows.CreateNamedPipe(name16,
		serverMode|windows.FILE_FLAG_OVERLAPPED|windows.FILE_FLAG_FIRST_PIPE_INSTANCE,
		windows.PIPE_TYPE_BYTE|windows.PIPE_REJECT_REMOTE_CLIENTS,
		1, pipeSize, pipeSize, 0, nil)
	if err != nil {
		return nil, nil, fmt.Errorf("create a pipe: %w", err)
	}
	// The other end is an ordinary waiting handle, as programs expect.
	client, err := windows.CreateFile(name16, clientAccess, 0, nil, windows.OPEN_EXISTING, 0, 0)
	if err != nil {
		_ = windows.CloseHandle(server)
		return nil, nil, fmt.Errorf("open a pipe: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(server), name), os.NewFile(uintptr(client), name)
	if ourEnd == writeEnd {
		return theirs, ours, nil
	}
	return ours, theirs, nil
}
