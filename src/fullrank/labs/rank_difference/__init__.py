"""The rank difference of RDM: the target branch has the higher effective rank wherever a method works."""
