"""People from an LDAP directory, such as OpenLDAP, 389 Directory Server or Active Directory."""
