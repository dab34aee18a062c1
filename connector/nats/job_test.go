package nats

func writeForEver(string) {}
