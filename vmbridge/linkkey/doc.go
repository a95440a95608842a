// Package linkkey makes, stores and reads link keys: the secret that both ends
// of a link prove to each other that they hold.
//
// Theory of operation. A key is 32 random bytes, written as 64 hexadecimal
// digits in a file of mode 0600, one file per link. The host's first start makes
// it; the guest gets a copy. It appears under its name in one step, whole and
// synced, so that two starts at once agree on one key and a crash leaves none or
// a good one.
package linkkey
