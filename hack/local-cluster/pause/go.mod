module localpause

go 1.25.0
