from rnp_lib.cli import main

main()
