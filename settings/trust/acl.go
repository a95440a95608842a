package trust

import "fmt"

// Rights of Windows that matter here, by their values in winnt.h.
const (
	rightWriteData       = 0x2 // of a directory: add a file
	rightAppendData      = 0x4 // of a directory: add a directory
	rightWriteEA         = 0x10
	rightDeleteChild     = 0x40
	rightWriteAttributes = 0x100
	rightDelete          = 0x10000
	rightWriteDAC        = 0x40000
	rightWriteOwner      = 0x80000
	rightGenericAll      = 0x10000000
	rightGenericWrite    = 0x40000000

	// What nobody but administrators may have, on a file and on a directory.
	fileRights = rightWriteData | rightAppendData | rightWriteEA | rightWriteAttributes |
		rightDelete | rightWriteDAC | rightWriteOwner | rightGenericAll | rightGenericWrite
	directoryRights = rightDeleteChild | rightDelete | rightWriteDAC | rightWriteOwner | rightGenericAll
)

// Kinds of entries of an access list.
const (
	aceAllowed               = 0x0
	aceDenied                = 0x1
	aceAllowedCompound       = 0x4
	aceAllowedObject         = 0x5
	aceAllowedCallback       = 0x9
	aceAllowedCallbackObject = 0xb

	aceInheritOnly = 0x8 // a flag: for what is made below, not for this
)

// Owners that are administrators or the system itself.
const (
	sidSystem           = "S-1-5-18"
	sidAdministrators   = "S-1-5-32-544"
	sidTrustedInstaller = "S-1-5-80-956008885-3418522649-1831038044-1853292631-2271478464"
	sidOwnerRights      = "S-1-3-4" // stands for the owner, who is judged first
)

// ace is one entry of an access list.
type ace struct {
	kind, flags byte
	rights      uint32
	sid         string
}

// accessList is what Windows knows about who may do what with a file.
type accessList struct {
	owner string
	none  bool // no list at all: open to all
	aces  []ace
}

// openTo says how others than administrators have any of the rights, and nothing
// when none has. An entry that denies is not counted: what it takes depends on
// the order and on the groups of who asks.
func (l accessList) openTo(rights uint32) string {
	if !administrators(l.owner) {
		return "owned by " + l.owner
	}
	if l.none {
		return "it has no access list: all may write"
	}
	for _, a := range l.aces {
		if a.flags&aceInheritOnly != 0 || a.rights&rights == 0 {
			continue
		}
		switch a.kind {
		case aceAllowed, aceAllowedCallback:
			if !administrators(a.sid) && a.sid != sidOwnerRights {
				return fmt.Sprintf("%s may write (rights %#x)", a.sid, a.rights&rights)
			}
		case aceAllowedCompound, aceAllowedObject, aceAllowedCallbackObject:
			return fmt.Sprintf("its access list has an entry of kind %d, which files do not have", a.kind)
		}
	}
	return ""
}

func administrators(sid string) bool {
	return sid == sidSystem || sid == sidAdministrators || sid == sidTrustedInstaller
}
