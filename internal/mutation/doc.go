// Package mutation switches single rules of the protocol off, so that tests can prove that the rule is needed and that the
// checkers notice when it is missing. The public API cannot reach it: outside tests the set is always empty.
package mutation
