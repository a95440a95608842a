// Package portowner names the process that holds a port of this machine, for
// the message that says why a forward could not open.
//
// Theory of operation. One call answers for many ports, because the price is in
// the scan: on Linux one sock_diag dump per protocol and family gives the uid
// and inode of every socket, and one walk over /proc/*/fd finds who has those
// inodes open. An ordinary user may not read the descriptors of other users'
// processes, so for those the uid is all there is, and the answer says so.
// Elsewhere gopsutil asks the system. A scan takes milliseconds to hundreds of
// them: never call Find with a lock held.
package portowner
