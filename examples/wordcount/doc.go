// Command wordcount counts the words of text files, and shows each count once whatever dies meanwhile:
//
//	go run ./examples/wordcount 'logs/*.txt' counts
//
// It is one process. Stopped or killed, it goes on when it is started again.
package main
