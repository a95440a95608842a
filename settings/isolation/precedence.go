package isolation

// A rank is the part that a file plays for a setting.
type rank int

const (
	lockedByAdmin  rank = iota // admin-settings.json, locked
	defaultByAdmin             // admin-settings.json, not locked
	inStore                    // settings-store.json
	inOlder                    // settings.json, with no settings-store.json beside it
	leftBehind                 // settings.json, beside a settings-store.json
)

// An outcome is what one file says about a setting, after the files that
// outrank others have been heard.
type outcome struct {
	from   source
	rank   rank
	state  State
	lock   bool   // the file marks it as locked
	silent bool   // the file is fine, but has no such setting
	what   string // in words
}

// A desktopUser is one user's files.
type desktopUser struct{ store, older source }

func (u desktopUser) installed() bool { return u.store.exists || u.older.exists }

// resolve finds out how a setting of Docker Desktop stands. Without any file
// there is no outcome.
func resolve(name string, admin source, users []desktopUser) []outcome {
	forced := said(admin, name)
	if forced.locked && forced.decided() {
		return []outcome{outcomeOf(admin, lockedByAdmin, forced)}
	}
	var outcomes []outcome
	if forced.state == Unknown && forced.what != "" { // it may lock anything
		outcomes = append(outcomes, outcomeOf(admin, defaultByAdmin, forced))
	}

	byDefault, installed := false, false
	for _, u := range users {
		if !u.installed() {
			continue
		}
		installed = true
		store, older := said(u.store, name), said(u.older, name)
		if store.decided() {
			outcomes = append(outcomes, outcomeOf(u.store, inStore, store))
			continue
		}
		olderRank := leftBehind
		if !u.store.exists {
			olderRank = inOlder
		}
		if older.what != "" {
			outcomes = append(outcomes, outcomeOf(u.older, olderRank, older))
		}
		if u.store.exists && store.what != "" {
			outcomes = append(outcomes, outcomeOf(u.store, inStore, store))
		}
		switch {
		case forced.decided():
			// What is not written down is the administrator's default. But a file
			// in use that says something outranks it.
			byDefault = byDefault || !(olderRank == inOlder && older.decided())
		case u.store.exists && store.what == "":
			outcomes = append(outcomes, outcome{from: u.store, rank: inStore, state: Unknown, silent: true,
				what: "does not say: it keeps only what differs from the default"})
		case !u.store.exists && older.what == "":
			outcomes = append(outcomes, outcome{from: u.older, rank: inOlder, state: Unknown, silent: true, what: "does not say"})
		}
	}
	switch {
	case forced.decided() && (byDefault || !installed):
		outcomes = append(outcomes, outcomeOf(admin, defaultByAdmin, forced))
	case admin.exists && forced.what == "" && !installed:
		outcomes = append(outcomes, outcome{from: admin, rank: defaultByAdmin, state: Unknown, silent: true, what: "does not say"})
	}
	return outcomes
}

// said is what a file says about a setting. A file with a problem says nothing
// certain; one that does not exist, or has no such setting, has no words for it.
func said(s source, name string) toggle {
	if s.problem != "" {
		return toggle{state: Unknown, what: s.problem}
	}
	return s.doc.toggle(name)
}

func outcomeOf(s source, r rank, t toggle) outcome {
	if r == defaultByAdmin && t.decided() {
		t.what += ", as a default that users may change"
	}
	return outcome{from: s, rank: r, state: t.state, lock: t.locked, what: t.what}
}
