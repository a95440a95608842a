package product

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// started is a program that was started by its path.
func started(path string, args ...string) Process {
	return Process{Path: path, Args: append([]string{path}, args...)}
}

// Command lines in the forms that the products' sources, documentation and users
// have. Those with a number are out of that issue, but for the users' names; the
// others are put together and were not captured on a machine.
func TestIdentify(t *testing.T) {
	const id = "440371b8-ec9a-4297-b404-c5a6db08616d"
	lima := func(dir, instance string) Process {
		return started("/opt/homebrew/bin/limactl", "hostagent", "--pidfile", dir+"/ha.pid", "--socket", dir+"/ha.sock",
			"--guestagent", "/opt/homebrew/share/lima/lima-guestagent.Linux-aarch64.gz", instance)
	}
	ssh := func(args ...string) Process { return Process{Name: "ssh", Path: "/usr/bin/ssh", Args: args} }
	for name, c := range map[string]struct {
		p, parent Process
		want      VM // the zero VM is none
	}{
		"Lima":                  {p: lima("/Users/ada/.lima/default", "default"), want: VM{Product: Lima, Name: "default"}},
		"Lima, debugging":       {p: started("/usr/local/bin/limactl", "--debug", "hostagent", "--pidfile", "/home/ada/.lima/dev/ha.pid", "--socket", "/home/ada/.lima/dev/ha.sock", "dev"), want: VM{Product: Lima, Name: "dev"}},
		"Lima, without flags":   {p: started("limactl", "hostagent", "dev"), want: VM{Product: Lima, Name: "dev"}},
		"Lima, upgraded":        {p: Process{Path: "/usr/bin/limactl (deleted)", Args: lima("/home/ada/.lima/x", "x").Args}, want: VM{Product: Lima, Name: "x"}},
		"Lima, a tunnel":        {p: started("/opt/homebrew/bin/limactl", "tunnel", "default")},
		"Lima, a shell":         {p: started("/opt/homebrew/bin/limactl", "shell", "default")},
		"not Lima by name":      {p: Process{Path: "/opt/homebrew/bin/other", Name: "limactl", Args: lima("/Users/ada/.lima/default", "default").Args}},
		"Colima":                {p: lima("/Users/ada/.colima/_lima/colima", "colima"), want: VM{Product: Colima, Name: "default"}},
		"Colima, profile":       {p: lima("/Users/ada/.config/colima/_lima/colima-fresh", "colima-fresh"), want: VM{Product: Colima, Name: "fresh"}},
		"Colima's ssh, #644":    {p: ssh("ssh: /Users/rfay/.lima/colima-fresh/ssh.sock [mux]"), want: VM{Product: Colima, Name: "fresh"}},
		"Lima's ssh, on Linux":  {p: ssh("ssh: /home/ada/.lima/default/ssh.sock [mux]", "", "", ""), want: VM{Product: Lima, Name: "default"}},
		"Lima's ssh, a child":   {p: ssh("ssh", "-F", "/dev/null", "-L", "127.0.0.1:80:127.0.0.1:80", "-p", "60022", "127.0.0.1"), parent: lima("/Users/ada/.lima/dev", "dev"), want: VM{Product: Lima, Name: "dev"}},
		"a user's ssh":          {p: ssh("ssh", "-L", "8080:localhost:80", "lima-default"), parent: started("/bin/zsh", "-l")},
		"a user's ssh, a mux":   {p: ssh("ssh: /Users/ada/.ssh/cm-vm [mux]")},
		"a user's ssh, started": {p: ssh("ssh", "-L", "8080:localhost:80", "vm"), parent: started("/usr/bin/limactl", "shell", "default")},
		"Rancher on macOS": {p: Process{Path: "/Applications/Rancher Desktop.app/Contents/Resources/resources/darwin/lima/bin/limactl",
			Args: lima("/Users/ada/Library/Application Support/rancher-desktop/lima/0", "0").Args}, want: VM{Product: RancherDesktop}},
		"Rancher's ssh":            {p: ssh("ssh: /Users/ada/Library/Application Support/rancher-desktop/lima/0/ssh.sock [mux]"), want: VM{Product: RancherDesktop}},
		"Rancher on Windows":       {p: started(`C:\Program Files\Rancher Desktop\resources\resources\win32\internal\host-switch.exe`, "--subnet", "192.168.127.0/24"), want: VM{Product: RancherDesktop}},
		"WSL, #41680":              {p: started(`C:\Program Files\WSL\wslrelay.exe`, "--mode", "1", "--handle", "1234", "--vm-id", "{440371B8-EC9A-4297-B404-C5A6DB08616D}"), want: VM{Product: WSL, ID: id}},
		"WSL, the VM unknown":      {p: started(`C:\Program Files\WSL\wslrelay.exe`, "--mode", "1"), want: VM{Product: WSL}},
		"WSL, a debugger's port":   {p: started(`C:\Program Files\WSL\wslrelay.exe`, "--mode", "2", "--port", "50000")},
		"WSL, older":               {p: started(`C:\Windows\System32\lxss\wslhost.exe`, "--vm-id", "{440371b8-ec9a-4297-b404-c5a6db08616d}", "--handle", "1234"), want: VM{Product: WSL, ID: id}},
		"Docker on macOS":          {p: started("/Applications/Docker.app/Contents/MacOS/com.docker.backend", "services"), want: VM{Product: DockerDesktop}},
		"Docker on Windows":        {p: started(`C:\Program Files\Docker\Docker\resources\com.docker.backend.exe`, "run"), want: VM{Product: DockerDesktop}},
		"Docker on Linux":          {p: started("/opt/docker-desktop/bin/com.docker.backend"), want: VM{Product: DockerDesktop}},
		"Docker's vpnkit":          {p: started("/Applications/Docker.app/Contents/Resources/bin/com.docker.vpnkit", "--ethernet", "fd:3"), want: VM{Product: DockerDesktop}},
		"Docker's bridge":          {p: started("/Applications/Docker.app/Contents/MacOS/vpnkit-bridge", "--disable", "wsl2-cross-distro-service"), want: VM{Product: DockerDesktop}},
		"another's vpnkit":         {p: started("/usr/local/bin/vpnkit", "--ethernet", "/tmp/x")},
		"Podman on macOS, #14772":  {p: started("/opt/podman/bin/gvproxy", "-debug", "-mtu", "1500", "-ssh-port", "49437", "-listen-vfkit", "unixgram:///var/folders/5t/T/podman/podman-machine-default-gvproxy.sock", "-forward-identity", "/Users/ada/.local/share/containers/podman/machine/machine", "-forward-sock", "/var/folders/5t/T/podman/podman-machine-default-api.sock", "-forward-dest", "/run/user/501/podman/podman.sock"), want: VM{Product: Podman, Name: "podman-machine-default"}},
		"Podman on Linux, #425":    {p: started("/usr/local/lib/podman/gvproxy", "-debug", "-mtu", "1500", "-ssh-port", "41117", "-listen-qemu", "unix:///run/user/1000/podman/crc-gvproxy.sock", "-forward-sock", "/run/user/1000/podman/crc-api.sock", "-forward-dest", "/run/user/1000/podman/podman.sock"), want: VM{Product: Podman, Name: "crc"}},
		"Podman on Windows":        {p: started(`C:\Program Files\RedHat\Podman\gvproxy.exe`, "-listen", "vsock://00000400-FACB-11E6-BD58-64006A7986D3", "-forward-sock", "npipe:////./pipe/podman-machine-default"), want: VM{Product: Podman, Name: "podman-machine-default"}},
		"gvproxy alone":            {p: started("/usr/local/bin/gvproxy", "-listen-vfkit=unixgram:///tmp/my.sock"), want: VM{Product: GVProxy, Name: "my.sock"}},
		"OpenShift Local":          {p: started("/usr/local/crc/crc", "daemon", "--watchdog"), want: VM{Product: CRC}},
		"OpenShift Local, no more": {p: started("/usr/local/crc/crc", "console")},
		"OrbStack":                 {p: started("/Applications/OrbStack.app/Contents/Frameworks/OrbStack Helper.app/Contents/MacOS/OrbStack Helper", "vmgr", "-build-id", "1"), want: VM{Product: OrbStack}},
		"OrbStack, #121":           {p: started("/Applications/OrbStack.app/Contents/MacOS/macvmgr", "vmgr", "-build-id", "336015372"), want: VM{Product: OrbStack}},
		"OrbStack's ssh":           {p: started("/Applications/OrbStack.app/Contents/Frameworks/OrbStack Helper.app/Contents/MacOS/OrbStack Helper", "ssh-proxy-fdpass", "501")},
		"Windows' portproxy":       {p: started(`C:\Windows\System32\svchost.exe`, "-k", "NetSvcs", "-p", "-s", "iphlpsvc")},
		"a server":                 {p: started("/usr/sbin/nginx", "-g", "daemon off;")},
		"nothing known":            {},
	} {
		got, ok := identify(c.p, c.parent)
		if ok != (c.want != VM{}) || ok && got != c.want {
			t.Errorf("%s: %+v %v, want %+v", name, got, ok, c.want)
		}
	}
}

func TestOfLink(t *testing.T) {
	for url, want := range map[string]VM{
		"lima://":                  {Product: Lima, Name: "default"},
		"lima://dev":               {Product: Lima, Name: "dev"},
		"lima://colima":            {Product: Colima, Name: "default"},
		"colima://":                {Product: Colima, Name: "default"},
		"colima://fresh":           {Product: Colima, Name: "fresh"},
		"podman-machine://":        {Product: Podman},
		"podman-machine://x":       {Product: Podman, Name: "x"},
		"wsl://":                   {Product: WSL},
		"wsl://Ubuntu":             {Product: WSL},
		"docker://":                {},
		"docker://default":         {},
		"docker://desktop-linux":   {Product: DockerDesktop},
		"docker://rancher-desktop": {Product: RancherDesktop},
		"docker://orbstack":        {Product: OrbStack},
		"docker://colima":          {Product: Colima, Name: "default"},
		"docker://colima-fresh":    {Product: Colima, Name: "fresh"},
		"docker://lima-dev":        {Product: Lima, Name: "dev"},
		"hyperv://0cb41c0b-fd26-4a41-8370-dccb048e216e:732": {ID: "0cb41c0b-fd26-4a41-8370-dccb048e216e"},
		"sandbox:":                                  {Product: ours},
		"vhost-user:///run/vm?cid=3":                {Product: ours},
		"vsock://3:732":                             {},
		"tcp://192.0.2.1:732":                       {},
		"unix:///run/vm.sock":                       {},
		"unix:///Users/ada/.lima/dev/vmbridge.sock": {Product: Lima, Name: "dev"},
		"hybrid:///Users/ada/.colima/_lima/colima/v.sock?port=1": {Product: Colima, Name: "default"},
		"exec:ssh vm vmbridge-guest":                             {},
		"exec:limactl shell dev sudo x":                          {Product: Lima, Name: "dev"},
		"exec:limactl shell --workdir / dev x":                   {},
		"exec:colima ssh -p fresh -- x":                          {Product: Colima, Name: "fresh"},
		"exec:colima ssh -- x":                                   {Product: Colima, Name: "default"},
		"exec:podman machine ssh x":                              {Product: Podman, Name: "x"},
		"exec:podman machine ssh -- x":                           {Product: Podman},
		"exec:podman run x":                                      {},
		"exec:wsl.exe -d Ubuntu -u root x":                       {Product: WSL},
		"exec:rdctl shell x":                                     {Product: RancherDesktop},
		"exec:orb -u root x":                                     {Product: OrbStack},
		"exec:":                                                  {},
		"":                                                       {},
	} {
		if got := OfLink(url); got != want {
			t.Errorf("%s: %+v, want %+v", url, got, want)
		}
	}
}

// FuzzIdentify: whatever another process is called and started with, what is shown
// of it is printable and short.
func FuzzIdentify(f *testing.F) {
	f.Add("/usr/bin/limactl", "hostagent\x00--pidfile\x00/a/\x1b[2J/ha.pid\x00x", "")
	f.Add("ssh", "ssh: /a/b/ssh.sock [mux]", "limactl\x00hostagent")
	f.Add("gvproxy", "g\x00-forward-sock\x00podman\x00--\x00-x=", "")
	f.Add(`C:\wslrelay.exe`, "x\x00--mode=1\x00--vm-id={", "")
	f.Add("limactl", "hostagent", "")
	f.Fuzz(func(t *testing.T, path, args, parent string) {
		split := func(s string) []string { return strings.Split(s, "\x00") }
		p := Process{Path: path, Args: split(args)}
		up := Process{Path: split(parent)[0], Args: split(parent)}
		for _, vm := range []VM{first(identify(p, up)), OfLink(path), OfLink("exec:" + args), OfLink(parent)} {
			if len(vm.Name) > maxName || !utf8.ValidString(vm.String()) || strings.ContainsFunc(vm.String(), unicode.IsControl) {
				t.Errorf("%q", vm.String())
			}
		}
	})
}

func first(vm VM, _ bool) VM { return vm }
