"""Laws that call every operation; what an operation must do for them is to be declared."""
