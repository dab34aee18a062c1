// Command wordcount counts the words of the text files in the working directory, and shows each count once whatever dies meanwhile:
//
//	go run ./examples/wordcount
//
// The counts are in the directory counts, the state in counts.state. It is one process. Stopped or killed, it goes on when it is started again.
package main
