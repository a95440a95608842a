// Package trust reads files that only administrators can have written.
//
// Theory of operation. A file is as safe as the weakest directory on the way to
// it: who may write in a directory can put another file, or another directory,
// where the right one was. So the way is walked from the root of the file
// system, and each directory is judged as it is passed.
//
// On Unix each step opens its entry relative to the directory just judged and
// without following links, and judges what it has opened. A symbolic link is
// read in the directory that holds it, and walked like the rest. So the file
// that is read is the file that was judged: between the two there is no name to
// look up again. Safe is what root owns and nobody but root may write; the
// group may when it is root's own, or admin on macOS, whose members may become
// root as they like. A directory with the sticky bit may be open to all, since
// nobody can take away what root has put there. Access lists of macOS are not
// looked at; those of Linux are where they could make a difference.
//
// On Windows the directories are held open without leave to rename them until
// the file has been read. Safe is what SYSTEM, Administrators or
// TrustedInstaller own, and whose access list lets nobody else change it. A
// directory may let others add to it, as C:\ and C:\ProgramData do: what they add
// is theirs, and is found out by its owner. Network paths and reparse points are
// refused.
//
// A missing file is reported as such only where ordinary users could not have
// taken it away; elsewhere it is an *Error about the directory.
package trust
