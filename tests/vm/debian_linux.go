package vm

// Debian is a system with systemd, which starts tests/vm/guest, and with Docker,
// which is started when a test asks for it.
var Debian = System{
	Name: "debian",
	Packages: []string{
		"systemd-sysv", "dbus", "kmod", "procps", "iproute2", "netcat-openbsd", "docker.io",
	},
	Script: `
echo machine > /etc/hostname
echo 127.0.0.1 localhost machine > /etc/hosts
echo ::1 localhost >> /etc/hosts
echo 0123456789abcdef0123456789abcdef > /etc/machine-id
mkdir -p /etc/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nRateLimitBurst=0\n' > /etc/systemd/journald.conf.d/tests.conf
cat > /etc/systemd/system/orders.service <<END
[Unit]
Description=Orders of the tests
[Service]
ExecStart=/usr/local/bin/guest
StandardOutput=journal+console
LimitNOFILE=1048576
TasksMax=infinity
KillMode=process
[Install]
WantedBy=multi-user.target
END
systemctl enable orders.service
systemctl disable docker.service docker.socket containerd.service
systemctl mask apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer \
	e2scrub_reap.service fstrim.timer systemd-pcrphase.service systemd-pcrphase-sysinit.service \
	getty.target getty@tty1.service console-getty.service serial-getty@ttyS0.service
`,
}

// OpenRC is a small system with OpenRC, whose init starts tests/vm/guest.
var OpenRC = System{
	Name:     "openrc",
	Packages: []string{"sysvinit-core", "openrc", "kmod", "procps", "iproute2"},
	Script: `
echo machine > /etc/hostname
echo 127.0.0.1 localhost machine > /etc/hosts
cat > /etc/inittab <<END
id:3:initdefault:
lo::sysinit:/sbin/ip link set lo up
si::sysinit:/sbin/openrc sysinit
bo::bootwait:/sbin/openrc boot
de:3:wait:/sbin/openrc default
sh:06:wait:/sbin/openrc shutdown
re:6:wait:/sbin/reboot -d -f
or:3:respawn:/bin/sh -c "exec /usr/local/bin/guest >/dev/console 2>&1 </dev/null"
END
# Most of what Debian starts at boot takes long in emulation, and does nothing.
rm -f /etc/runlevels/sysinit/* /etc/runlevels/boot/* /etc/runlevels/default/*
rc-update add cgroups sysinit
`,
}
