package owner

import (
	"strings"
	"testing"
)

const (
	idA = "4f1c0f0e8d3a5b6c7d8e9f00112233445566778899aabbccddeeff0011223344"
	idB = "bbbb0f0e8d3a5b6c7d8e9f00112233445566778899aabbccddeeff001122bbbb"
)

func TestContainerID(t *testing.T) {
	for path, want := range map[string]string{
		"/docker/" + idA:                                    idA,
		"/sys/fs/cgroup/unified/docker/" + idA:              idA,
		"/system.slice/docker-" + idA + ".scope":            idA,
		"/system.slice/docker-" + idA + ".scope/init.scope": idA,
		"/kubepods/burstable/pod1a2b-3c/" + idA:             idA,
		"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod1a2b_3c.slice/cri-containerd-" + idA + ".scope": idA,
		"/kubepods.slice/kubepods-pod1a2b_3c.slice/crio-" + idA + ".scope":                                                idA,
		"/machine.slice/libpod-" + idA + ".scope/container":                                                               idA,
		"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + idA + ".scope":                               idA,
		"/libpod_parent/libpod-" + idA:                                                                                    idA,
		"/machine.slice/libpod-conmon-" + idA + ".scope":                                                                  "",
		"/system.slice/nerdctl-" + idA + ".scope":                                                                         idA,
		"/default/" + idA:                                idA,
		"/docker/" + idA + "/docker/" + idB:              idB,
		"/docker/" + idA + "/system.slice/nginx.service": idA,
		"/../" + idB:                               idB,
		"/system.slice/docker.service":             "",
		"/user.slice/user-0.slice/session-1.scope": "",
		"/docker/" + strings.ToUpper(idA):          "",
		"/docker/" + idA[1:]:                       "",
		"/":                                        "",
		"":                                         "",
	} {
		if got, ok := containerID(path); got != want || ok != (want != "") {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestCgroupFileContainer(t *testing.T) {
	for text, want := range map[string]string{
		"0::/system.slice/docker-" + idA + ".scope\n":                                                           idA,
		"9:name=systemd:/docker/" + idA + "\n8:pids:/docker/" + idA + "\n0::/system.slice/containerd.service\n": idA,
		"9:name=systemd:/\n0::/\n":          "",
		"9:name=systemd:/a:b/" + idB + "\n": idB,
		"broken\n":                          "",
		"":                                  "",
	} {
		if got, _ := cgroupFileContainer(text); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func FuzzContainerID(f *testing.F) {
	f.Add("/system.slice/docker-" + idA + ".scope")
	f.Add("9:name=systemd:/docker/" + idA + "\n0::/")
	f.Fuzz(func(t *testing.T, s string) {
		for _, find := range []func(string) (string, bool){containerID, cgroupFileContainer} {
			if id, ok := find(s); ok != isContainerID(id) || ok && !strings.Contains(s, id) {
				t.Errorf("%q: got %q, %v", s, id, ok)
			}
		}
	})
}
