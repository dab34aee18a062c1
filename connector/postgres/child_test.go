package postgres

const childVariable = "POSTGRES_TEST_CHILD"

func runChild(string) int { return 0 }
