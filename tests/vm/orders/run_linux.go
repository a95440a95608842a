package orders

import (
	"errors"
	"os"
	"os/exec"
	"strconv"
	"syscall"
)

// run runs a program. It is killed when the test closes the connection.
func run(f *framer, args []string) error {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Env = append(os.Environ(), "HOME=/root")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Stdout, cmd.Stderr = writer{f, kindStdout}, writer{f, kindStderr}
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	ended := make(chan struct{})
	kill := func() {
		select {
		case <-ended: // what it left behind may stay
		default:
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
	go func() {
		defer in.Close()
		for {
			k, payload, err := f.read()
			if err != nil {
				kill()
				return
			}
			switch k {
			case kindReset:
				kill()
			case kindData:
				_, _ = in.Write(payload) // a program need not read
			case kindEnd:
				in.Close()
			}
		}
	}()
	err = cmd.Wait()
	close(ended)
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		return err
	}
	status := cmd.ProcessState.ExitCode()
	if ws := cmd.ProcessState.Sys().(syscall.WaitStatus); ws.Signaled() {
		status = 128 + int(ws.Signal())
	}
	return f.write(kindStatus, []byte(strconv.Itoa(status)))
}
