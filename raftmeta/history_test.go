package raftmeta

import _ "github.com/anishathalye/porcupine"
