// Command cluster is a program that is its own cluster. It adds up the amounts of orders, lines such as "Berlin 12.50", by city:
//
//	go build ./examples/cluster
//	./cluster local                                             # a coordinator and three workers, all on this machine
//	./cluster status                                            # from another terminal
//	./cluster local --coordinators 3 --chaos kill=1s,target=worker
//
// On several machines each process is started by itself, with "cluster coordinator" and "cluster worker".
package main
