package trust

import "testing"

// Who may have changed a file on Windows, judged by lists as Windows gives them.
func TestAccessListOpenTo(t *testing.T) {
	const (
		users     = "S-1-5-32-545"
		everyone  = "S-1-1-0"
		bob       = "S-1-5-21-1-2-3-1001"
		full      = 0x1f01ff
		modify    = 0x1301bf
		readExec  = 0x1200a9
		addToDir  = rightWriteData | rightAppendData
		objectAll = 0x1f01ff
	)
	admins := ace{kind: aceAllowed, rights: full, sid: sidAdministrators}
	system := ace{kind: aceAllowed, rights: full, sid: sidSystem}
	with := func(owner string, more ...ace) accessList {
		return accessList{owner: owner, aces: append([]ace{admins, system}, more...)}
	}
	for _, c := range []struct {
		name            string
		list            accessList
		file, directory bool // it is safe as one
	}{
		{"administrators only", with(sidAdministrators), true, true},
		{"system's", with(sidSystem), true, true},
		{"installer's", with(sidTrustedInstaller), true, true},
		{"a user's", with(bob), false, false},
		{"no owner", with(""), false, false},
		{"users may read", with(sidSystem, ace{rights: readExec, sid: users}), true, true},
		{"users may modify", with(sidSystem, ace{rights: modify, sid: users}), false, false},
		{"everyone may do all", with(sidSystem, ace{rights: full, sid: everyone}), false, false},
		{"all by a generic right", with(sidSystem, ace{rights: rightGenericAll, sid: users}), false, false},
		{"write by a generic right", with(sidSystem, ace{rights: rightGenericWrite, sid: users}), false, true},
		{"ProgramData", with(sidSystem, ace{rights: full, sid: "S-1-3-0", flags: 0xb},
			ace{rights: readExec, sid: users, flags: 0x3}, ace{rights: 0x116, sid: users, flags: 0x2}), false, true},
		{"the drive's root", with(sidTrustedInstaller, ace{rights: rightAppendData, sid: "S-1-5-11"},
			ace{rights: 0xe0010000, sid: "S-1-5-11", flags: 0xb}), false, true},
		{"add files", with(sidSystem, ace{rights: addToDir, sid: users}), false, true},
		{"attributes", with(sidSystem, ace{rights: rightWriteAttributes, sid: users}), false, true},
		{"extended attributes", with(sidSystem, ace{rights: rightWriteEA, sid: users}), false, true},
		{"delete", with(sidSystem, ace{rights: rightDelete, sid: users}), false, false},
		{"delete what is in it", with(sidSystem, ace{rights: rightDeleteChild, sid: users}), true, false},
		{"change the list", with(sidSystem, ace{rights: rightWriteDAC, sid: bob}), false, false},
		{"take it", with(sidSystem, ace{rights: rightWriteOwner, sid: bob}), false, false},
		{"only for what is made below", with(sidSystem, ace{rights: full, sid: users, flags: aceInheritOnly}), true, true},
		{"the owner's rights", with(sidSystem, ace{rights: full, sid: sidOwnerRights}), true, true},
		{"under a condition", with(sidSystem, ace{kind: aceAllowedCallback, rights: full, sid: users}), false, false},
		{"an entry for objects", with(sidSystem, ace{kind: aceAllowedObject, rights: objectAll}), false, false},
		{"denied, then allowed", with(sidSystem, ace{kind: aceDenied, rights: full, sid: users},
			ace{rights: full, sid: users}), false, false},
		{"denied", with(sidSystem, ace{kind: aceDenied, rights: full, sid: users}), true, true},
		{"no list", accessList{owner: sidSystem, none: true}, false, false},
		{"an empty list", accessList{owner: sidSystem}, true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if reason := c.list.openTo(fileRights); (reason == "") != c.file {
				t.Errorf("as a file: %q", reason)
			}
			if reason := c.list.openTo(directoryRights); (reason == "") != c.directory {
				t.Errorf("as a directory: %q", reason)
			}
		})
	}
}
