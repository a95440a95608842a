// Package discover finds the virtual machines that other programs run on this
// host, for a daemon that was not told which one is meant.
//
// Theory of operation. What comes out is a list of Candidates, in the order of
// preference: on Linux the sandbox, for which nothing has to be there; elsewhere a
// container engine (package dockerapi), since one container is all that it takes;
// then the products whose machines give a shell. Each of these has a command that
// lists its machines; all are run at once, with a bound on their time. A Candidate that
// cannot be taken says why, in one line: the machine is stopped, the product did
// not answer. A product that is not installed is no Candidate. Linux's own engines are
// none either: they share this machine's network as it is.
//
// What the products print is read as their documentation has it: limactl list
// --format json and colima list --json give an object a line, podman machine list
// --format json gives one list, and wsl.exe --list --verbose a table, in UTF-16
// unless WSL_UTF8 is set (WSL 0.64), and with headings in the user's language.
package discover
