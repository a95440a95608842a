package trust

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"unsafe"

	"golang.org/x/sys/windows"
)

var (
	errNetwork    = errors.New("not a path on a drive of this machine")
	errReparse    = errors.New("a reparse point (a link or a mount)")
	errNotRegular = errors.New("not a regular file")
)

// open opens the file at an absolute path, having judged it and its way. The
// directories stay open until done, so that none can be renamed meanwhile.
func open(path string) (f *os.File, done func(), err error) {
	volume := filepath.VolumeName(path)
	if len(volume) != 2 || volume[1] != ':' {
		return nil, nil, wrap("open", path, errNetwork)
	}
	root, err := windows.UTF16PtrFromString(volume + `\`)
	if err != nil {
		return nil, nil, wrap("open", path, err)
	}
	if kind := windows.GetDriveType(root); kind == windows.DRIVE_REMOTE {
		return nil, nil, wrap("open", path, errNetwork)
	}
	var held []windows.Handle
	done = func() {
		for _, h := range held {
			windows.CloseHandle(h)
		}
	}
	dirs := above(path)
	for _, dir := range dirs {
		h, err := openJudged(dir, true)
		if err != nil {
			done()
			return nil, nil, err
		}
		held = append(held, h)
	}
	h, err := openJudged(path, false)
	if err != nil {
		done()
		return nil, nil, err
	}
	f = os.NewFile(uintptr(h), path)
	return f, func() { f.Close(); done() }, nil
}

// above lists the directories above a path, from the drive's root down.
func above(path string) []string {
	var dirs []string
	for dir := filepath.Dir(path); ; dir = filepath.Dir(dir) {
		dirs = append([]string{dir}, dirs...)
		if strings.EqualFold(dir, filepath.Dir(dir)) {
			return dirs
		}
	}
}

// openJudged opens a file or a directory, and judges what it has opened.
func openJudged(path string, directory bool) (windows.Handle, error) {
	name, err := windows.UTF16PtrFromString(path)
	if err != nil {
		return 0, wrap("open", path, err)
	}
	access, share := uint32(windows.GENERIC_READ|windows.READ_CONTROL), uint32(windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE|windows.FILE_SHARE_DELETE)
	rights := uint32(fileRights)
	if directory {
		// Leave to delete is leave to rename: not shared.
		access, share = windows.READ_CONTROL|windows.FILE_READ_ATTRIBUTES|windows.FILE_LIST_DIRECTORY, windows.FILE_SHARE_READ|windows.FILE_SHARE_WRITE
		rights = directoryRights
	}
	h, err := windows.CreateFile(name, access, share, nil, windows.OPEN_EXISTING,
		windows.FILE_FLAG_OPEN_REPARSE_POINT|windows.FILE_FLAG_BACKUP_SEMANTICS, 0)
	if err != nil {
		return 0, wrap("open", path, err)
	}
	if err := judge(h, path, directory, rights); err != nil {
		windows.CloseHandle(h)
		return 0, err
	}
	return h, nil
}

func judge(h windows.Handle, path string, directory bool, rights uint32) error {
	var info windows.ByHandleFileInformation
	if kind, err := windows.GetFileType(h); err != nil || kind != windows.FILE_TYPE_DISK {
		return wrap("open", path, errNotRegular)
	}
	if err := windows.GetFileInformationByHandle(h, &info); err != nil {
		return wrap("stat", path, err)
	}
	if info.FileAttributes&windows.FILE_ATTRIBUTE_REPARSE_POINT != 0 {
		return wrap("open", path, errReparse)
	}
	if is := info.FileAttributes&windows.FILE_ATTRIBUTE_DIRECTORY != 0; is != directory {
		return wrap("open", path, errNotRegular)
	}
	list, err := accessOf(h)
	if err != nil {
		return wrap("read access list of", path, err)
	}
	if reason := list.openTo(rights); reason != "" {
		return &Error{Path: path, Reason: reason}
	}
	return nil
}

// accessOf reads the owner and the access list of an open file.
func accessOf(h windows.Handle) (accessList, error) {
	sd, err := windows.GetSecurityInfo(h, windows.SE_FILE_OBJECT,
		windows.OWNER_SECURITY_INFORMATION|windows.DACL_SECURITY_INFORMATION)
	if err != nil {
		return accessList{}, err
	}
	owner, _, err := sd.Owner()
	if err != nil {
		return accessList{}, err
	}
	l := accessList{owner: owner.String()}
	acl, _, err := sd.DACL()
	if errors.Is(err, windows.ERROR_OBJECT_NOT_FOUND) || err == nil && acl == nil {
		l.none = true
		return l, nil
	}
	if err != nil {
		return accessList{}, err
	}
	for i := range uint32(acl.AceCount) {
		var entry *windows.ACCESS_ALLOWED_ACE
		if err := windows.GetAce(acl, i, &entry); err != nil {
			return accessList{}, err
		}
		a := ace{kind: entry.Header.AceType, flags: entry.Header.AceFlags, rights: uint32(entry.Mask)}
		if a.kind == aceAllowed || a.kind == aceDenied || a.kind == aceAllowedCallback {
			a.sid = (*windows.SID)(unsafe.Pointer(&entry.SidStart)).String()
		}
		l.aces = append(l.aces, a)
	}
	return l, nil
}
