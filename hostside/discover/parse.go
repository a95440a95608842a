package discover

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"
)

// maxMachines bounds what is read of a list.
const maxMachines = 100

// objects reads JSON objects that follow each other.
func objects[T any](out []byte) ([]T, error) {
	var all []T
	for in := json.NewDecoder(bytes.NewReader(out)); len(all) < maxMachines; {
		var one T
		if err := in.Decode(&one); err == io.EOF {
			break
		} else if err != nil {
			return nil, fmt.Errorf("read the list: %w", err)
		}
		all = append(all, one)
	}
	return all, nil
}

type limaInstance struct {
	Name   string `json:"name"`
	Status string `json:"status"`
	// Runtime is Colima's alone, which has the same list otherwise.
	Runtime string `json:"runtime"`
}

func (i limaInstance) machine() machine {
	return machine{name: i.Name, running: i.Status == "Running", state: i.Status}
}

func parseLima(out []byte) ([]machine, error) {
	list, err := objects[limaInstance](out)
	if err != nil {
		return nil, err
	}
	var machines []machine
	for _, i := range list {
		m := i.machine()
		// Colima keeps its instances in a home of their own as a rule.
		if name, ok := strings.CutPrefix(i.Name, "colima"); ok && (name == "" || name[0] == '-') {
			m.unfit = "it is Colima's"
		}
		machines = append(machines, m)
	}
	return machines, nil
}

func parseColima(out []byte) ([]machine, error) {
	list, err := objects[limaInstance](out)
	if err != nil {
		return nil, err
	}
	var machines []machine
	for _, i := range list {
		machines = append(machines, i.machine())
	}
	return machines, nil
}

func parsePodman(out []byte) ([]machine, error) {
	var list []struct {
		Name              string
		Running, Starting bool
	}
	if err := json.Unmarshal(out, &list); err != nil {
		return nil, fmt.Errorf("read the list: %w", err)
	}
	var machines []machine
	for _, i := range list[:min(len(list), maxMachines)] {
		m := machine{name: strings.TrimSuffix(i.Name, "*"), running: i.Running, state: "stopped"}
		if i.Starting {
			m.state = "starting"
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// parseWSL reads a table of names, states and versions. The default distribution
// has a star and comes first in the result, whatever its place; those of Docker
// Desktop, Rancher Desktop and Podman are no place for anybody else.
func parseWSL(out []byte) ([]machine, error) {
	var machines []machine
	for i, line := range strings.Split(decodeUTF16(out), "\n") {
		rest, preferred := strings.CutPrefix(strings.TrimSpace(line), "*")
		fields := strings.Fields(rest)
		if i == 0 || len(fields) == 0 {
			continue // the headings, or the end
		}
		if len(fields) < 3 {
			return nil, errors.New("read the list: a line has no name, state and version")
		}
		if len(machines) == maxMachines {
			break
		}
		// A name has no blanks, but a state may have some in other languages.
		name, version := fields[0], fields[len(fields)-1]
		m := machine{name: name, running: true, state: strings.Join(fields[1:len(fields)-1], " ")}
		switch {
		case version == "1":
			m.unfit = "it is of WSL 1, which shares the network of Windows anyway"
		case strings.HasPrefix(name, "docker-desktop"), strings.HasPrefix(name, "rancher-desktop"), strings.HasPrefix(name, "podman-"):
			m.unfit = "it belongs to another product"
		}
		if preferred {
			machines = append([]machine{m}, machines...)
			continue
		}
		machines = append(machines, m)
	}
	return machines, nil
}

// decodeUTF16 gives text that is UTF-16, little-endian, as UTF-8, and any other as
// it is.
func decodeUTF16(text []byte) string {
	text = bytes.TrimPrefix(text, []byte{0xff, 0xfe})
	if len(text)%2 != 0 || bytes.IndexByte(text, 0) < 0 {
		return string(text)
	}
	units := make([]uint16, len(text)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(text[2*i:])
	}
	return string(utf16.Decode(units))
}
