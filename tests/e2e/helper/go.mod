module modelwright.dev/e2e/helper

go 1.26
